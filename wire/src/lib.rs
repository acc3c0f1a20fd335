//! What packets look like: header views, checksums, segmentation, hashes.
