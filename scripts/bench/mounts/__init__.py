"""What the measurements of the mount share: a cheap client, the mounts it is run on, and contests of several sides."""
