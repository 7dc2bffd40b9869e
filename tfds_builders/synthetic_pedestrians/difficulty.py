"""How hard the pictures are: every strength and chance that is worth turning, in one place."""

# Scene.
CLUTTER = 6  # mean number of things in the background
PASSERS_BY = 0.15  # chance of another person behind
OCCLUSION = 0.1  # chance that something stands before the person
OCCLUDED = (0.08, 0.3)  # share of the picture that it takes

# Framing.
FILLED = (0.82, 0.95)  # height of an upright person in picture heights
SHIFT = 0.03  # largest shift of the person in picture heights
ROLL = 2.5  # largest turn of the camera in degrees

# Light and camera.
EXPOSURE = (0.75, 1.2)
CONTRAST = (0.7, 1.15)
COLOR_CAST = 0.1  # largest gain or loss of red and of blue
RESOLUTION = (112, 240)  # rows that the camera resolves
NOISE = (0.0, 0.03)  # standard deviation, 1 being white
JPEG_QUALITY = (40, 90)
