"""A ROS 2 node: images in, road masks out, with the image's own stamp and frame.

    ros2 run dlink_roads roads --ros-args -p model:=roads.onnx -r image:=/camera/image_raw

Topics: `image` (sensor_msgs/Image, rgb8 or bgr8), `roads` (sensor_msgs/Image, mono8, 255 is road), `/diagnostics`.
Parameters: `model`, `deadline` in seconds, `ground` in metres a pixel (0: frames as they come). The newest image is the
next one, so the queue's depth is 1.
"""

import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from dlink.live import Live, Roads

NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
ENCODINGS = ("rgb8", "bgr8")
OK, WARN = b"\x00", b"\x01"  # DiagnosticStatus.level is a byte
EVERY = 1.0  # seconds between diagnostics
LOOK = 0.005  # seconds between looks for new roads


class RoadsNode(Node):  # type: ignore[misc] # rclpy has no types
    def __init__(self) -> None:
        super().__init__("roads")
        model = self.declare_parameter("model", "roads.onnx").value
        deadline = self.declare_parameter("deadline", 0.2).value
        ground = self.declare_parameter("ground", 0.0).value
        self.live = Live(model, deadline=deadline, ground=ground or None)
        if self.live.assumes:
            self.get_logger().warning(self.live.assumes)
        self.last, self.refused, self.age = -1, 0, float("nan")
        self.publisher = self.create_publisher(Image, "roads", NEWEST)
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(Image, "image", self.offer, NEWEST)
        self.create_timer(LOOK, self.give)
        self.create_timer(EVERY, self.report)

    def offer(self, message: Image) -> None:
        """Offer an image. It is converted only if it is computed."""
        if message.encoding not in ENCODINGS:
            self.refused += 1
            self.get_logger().warning(
                f"images of encoding {message.encoding} are not taken, only {' and '.join(ENCODINGS)}",
                throttle_duration_sec=10.0,
            )
            return
        stamp = message.header.stamp
        age = self.get_clock().now().nanoseconds / 1e9 - (stamp.sec + stamp.nanosec / 1e9)
        captured = time.monotonic() - max(0.0, age)
        self.live.offer(lambda: pixels_of(message), captured=captured, tag=message.header)

    def give(self) -> None:
        """Publish new roads."""
        if (roads := self.live.latest(newer_than=self.last)) is not None:
            self.last, self.age = roads.frame.id, roads.done - roads.frame.captured
            self.publisher.publish(message_of(roads))

    def report(self) -> None:
        counts = self.live.counts
        values = {**vars(counts), "refused": self.refused, "age": round(self.age, 3), "views": self.live.views}
        fine = self.live.state == "running"
        status = DiagnosticStatus(level=OK if fine else WARN, name="dlink", message=self.live.state, hardware_id="")
        status.values = [KeyValue(key=name, value=str(value)) for name, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(array)

    def destroy_node(self) -> None:
        self.live.close()
        super().destroy_node()


def pixels_of(message: Image) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB. A row may be longer than its pixels (`step`)."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    image = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    return np.ascontiguousarray(image if message.encoding == "rgb8" else image[..., ::-1])


def message_of(roads: Roads) -> Image:
    """The mask, with the header of the image that it is of."""
    height, width = roads.mask.shape
    message = Image(height=height, width=width, encoding="mono8", is_bigendian=0, step=width)
    message.header = roads.frame.tag
    message.data = roads.mask.tobytes()
    return message


def main() -> None:
    rclpy.init()
    node = RoadsNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
