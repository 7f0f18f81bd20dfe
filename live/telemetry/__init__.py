"""Where the camera was and how it looked: KLV in the video, MAVLink, DJI's subtitles; as poses in time."""
