// One store's life, told by the official TypeScript SDK. Usage: node story.mjs BASE_URL, with the key in
// ANTHROPIC_API_KEY. Prints one line per chapter; the first broken promise ends it with a non-zero status.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.argv[2],
  apiKey: process.env.ANTHROPIC_API_KEY,
  maxRetries: 0,
  timeout: 20_000,
});
const stores = client.beta.memoryStores;
const { memories, memoryVersions: versions } = stores;

const sha256 = (text) => createHash("sha256").update(text, "utf8").digest("hex");

async function all(page) {
  const items = [];
  for await (const item of page) items.push(item);
  return items;
}

async function refused(call, status, type) {
  const error = await call.then(
    () => assert.fail(`the call was accepted; ${status} ${type} was due`),
    (reason) => reason,
  );
  assert.ok(error instanceof Anthropic.APIError, `not an answer of the API: ${error}`);
  assert.equal(error.status, status);
  assert.equal(error.error.error.type, type);
  return error.error.error;
}

const chapters = {
  async "a store is created, changed and found"(story) {
    const created = await stores.create({ name: "TypeScript story", metadata: { kept: "1", dropped: "2" } });
    assert.equal(created.type, "memory_store");
    assert.equal(created.description, "");
    assert.equal(created.archived_at, null);
    const changed = await stores.update(created.id, {
      description: "told by a test",
      metadata: { dropped: null, added: "3" },
    });
    assert.deepEqual(changed.metadata, { kept: "1", added: "3" });
    assert.deepEqual(await stores.retrieve(created.id), changed);
    const listed = await all(stores.list({ limit: 1, "created_at[gte]": created.created_at }));
    assert.ok(listed.some((store) => store.id === created.id));
    story.store = created.id;
  },

  async "memories are created and read back"(story) {
    const text = "naïve café ☕\n";
    const created = await memories.create(story.store, { path: "/notes/first.md", content: text });
    assert.equal(created.content, null);
    assert.equal(created.content_sha256, sha256(text));
    assert.equal(created.content_size_bytes, Buffer.byteLength(text));
    const read = await memories.retrieve(created.id, { memory_store_id: story.store });
    assert.equal(read.content, text);
    story.memory = read;
  },

  async "a path is taken once"(story) {
    const taken = memories.create(story.store, { path: "/notes/first.md", content: "" });
    const error = await refused(taken, 409, "memory_path_conflict_error");
    assert.equal(error.conflicting_memory_id, story.memory.id);
    const below = memories.create(story.store, { path: "/notes/first.md/deeper", content: "" });
    assert.equal((await refused(below, 409, "memory_path_conflict_error")).conflicting_path, "/notes/first.md");
  },

  async "an update with an outdated precondition is refused, then resolved"(story) {
    const write = (content, digest) =>
      memories.update(story.memory.id, {
        memory_store_id: story.store,
        content,
        precondition: { type: "content_sha256", content_sha256: digest },
        view: "full",
      });
    const first = await write(`${story.memory.content}one\n`, story.memory.content_sha256);
    await refused(
      write(`${story.memory.content}two\n`, story.memory.content_sha256),
      409,
      "memory_precondition_failed_error",
    );
    const merged = await write(`${first.content}two\n`, first.content_sha256);
    assert.equal(merged.content, `${story.memory.content}one\ntwo\n`);
    story.memory = merged;
  },

  async "a rename keeps the ID"(story) {
    const renamed = await memories.update(story.memory.id, { memory_store_id: story.store, path: "/notes/kept.md" });
    assert.equal(renamed.id, story.memory.id);
    assert.equal(renamed.path, "/notes/kept.md");
    assert.equal(renamed.content_sha256, story.memory.content_sha256);
    story.head = renamed.memory_version_id;
  },

  async "listings page by themselves"(story) {
    const expected = new Map([["/notes/kept.md", story.memory.content]]);
    for (let number = 0; number < 25; number += 1) {
      const path = `/many/${String(number).padStart(2, "0")}.md`;
      await memories.create(story.store, { path, content: `number ${number}` });
      expected.set(path, `number ${number}`);
    }
    const paths = (await all(memories.list(story.store, { limit: 4 }))).map((item) => item.path);
    assert.deepEqual(paths.sort(), [...expected.keys()].sort());
    const page = await memories.list(story.store, { view: "full", limit: 100 });
    assert.equal(page.data.length, 20);
    const full = await all(memories.list(story.store, { view: "full", limit: 100 }));
    assert.equal(full.length, expected.size);
    for (const item of full) assert.equal(item.content, expected.get(item.path));
    const top = await all(memories.list(story.store, { depth: 1, limit: 1 }));
    assert.deepEqual(top.map((item) => [item.type, item.path]).sort(), [
      ["memory_prefix", "/many/"],
      ["memory_prefix", "/notes/"],
    ]);
    const below = await all(memories.list(story.store, { path_prefix: "/notes/" }));
    assert.deepEqual(below.map((item) => item.path), ["/notes/kept.md"]);
  },

  async "every change is in the history"(story) {
    story.history = await all(versions.list(story.store, { memory_id: story.memory.id, limit: 1 }));
    assert.deepEqual(
      story.history.map((version) => version.operation),
      ["modified", "modified", "modified", "created"],
    );
    assert.equal(story.history[0].id, story.head);
    assert.equal(story.history[0].created_by.type, "api_actor");
    const oldest = await versions.retrieve(story.history.at(-1).id, { memory_store_id: story.store });
    assert.equal(sha256(oldest.content), oldest.content_sha256);
  },

  async "an old version is redacted, the head is not"(story) {
    const redacted = await versions.redact(story.history.at(-1).id, { memory_store_id: story.store });
    assert.deepEqual(
      [redacted.content, redacted.path, redacted.content_sha256, redacted.content_size_bytes],
      [null, null, null, null],
    );
    assert.equal(redacted.redacted_by.type, "api_actor");
    await refused(versions.redact(story.head, { memory_store_id: story.store }), 400, "invalid_request_error");
  },

  async "an archived store can be read and emptied, not written"(story) {
    const archived = await stores.archive(story.store);
    assert.notEqual(archived.archived_at, null);
    assert.equal((await stores.archive(story.store)).archived_at, archived.archived_at);
    const creation = memories.create(story.store, { path: "/late.md", content: "" });
    await refused(creation, 400, "invalid_request_error");
    const still = await memories.retrieve(story.memory.id, { memory_store_id: story.store });
    assert.equal(still.content, story.memory.content);
    await refused(
      memories.delete(story.memory.id, { memory_store_id: story.store, expected_content_sha256: sha256("other") }),
      409,
      "memory_precondition_failed_error",
    );
    const deleted = await memories.delete(story.memory.id, {
      memory_store_id: story.store,
      expected_content_sha256: story.memory.content_sha256,
    });
    assert.deepEqual({ id: deleted.id, type: deleted.type }, { id: story.memory.id, type: "memory_deleted" });
    const last = await versions.list(story.store, { memory_id: story.memory.id, limit: 1 });
    assert.equal(last.data[0].operation, "deleted");
    assert.equal(last.data[0].path, "/notes/kept.md");
  },

  async "a deleted store is gone"(story) {
    assert.equal((await stores.delete(story.store)).type, "memory_store_deleted");
    await refused(stores.retrieve(story.store), 404, "not_found_error");
  },
};

const story = {};
for (const [promise, tell] of Object.entries(chapters)) {
  await tell(story);
  console.log(promise);
}
