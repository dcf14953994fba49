"""Who is inside, for those who answer for them: the evacuation list, and passback resets."""
