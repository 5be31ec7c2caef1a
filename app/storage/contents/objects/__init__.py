"""Where the blob store keeps its objects: one port, and what stands behind it on a disk, on S3, and anywhere else."""
