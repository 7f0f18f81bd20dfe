"""Trains networks on tiles, makes masks from OpenStreetMap and tiles of SpaceNet, and fine-tunes INT8 networks.

Needs PyTorch and OpenCV.
"""
