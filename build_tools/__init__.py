"""What setup.py and the Makefile need to build RoboCache's native libraries. Not installed."""
