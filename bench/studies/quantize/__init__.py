"""The INT8 doctor: searches for a recipe that keeps the accuracy and gains speed, and says where there is none."""
