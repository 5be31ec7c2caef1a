-- Rotates over many targets, one per line of a file. With a body size it POSTs content that differs each time.
-- Arguments: file of paths, API key, bytes of content (0: GET), text that no other round uses.

local requests, heads, tail = {}, {}, ""
local count, at, sent = 0, 0, 0
local update = false

local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  local bytes, round = tonumber(args[3]), args[4]
  update = bytes > 0
  local headers = "Host: 127.0.0.1\r\nx-api-key: " .. args[2] .. "\r\nanthropic-version: 2026-10-21\r\n" ..
    "anthropic-beta: agent-memory-2026-07-22\r\n"
  local mark = string.format("round %s thread %02d update ", round, number)
  -- The twelve digits of the counter follow the mark.
  local filler = string.rep("x", bytes - #mark - 12)
  tail = filler .. '"}'
  local length = #'{"content":"' + #mark + 12 + #tail
  for path in io.lines(args[1]) do
    count = count + 1
    if update then
      heads[count] = "POST " .. path .. " HTTP/1.1\r\n" .. headers .. "content-type: application/json\r\n" ..
        "content-length: " .. length .. '\r\n\r\n{"content":"' .. mark
    else
      requests[count] = "GET " .. path .. " HTTP/1.1\r\n" .. headers .. "\r\n"
    end
  end
end

function request()
  at = at % count + 1
  if not update then return requests[at] end
  sent = sent + 1
  return heads[at] .. string.format("%012d", sent) .. tail
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format(
    'JSON {"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
