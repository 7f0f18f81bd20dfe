"""Video as it comes: from a link that may break, a file, a camera or a pipe; and its recording. Needs PyAV."""
