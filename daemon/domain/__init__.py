"""The words everybody uses; imports nothing of ours but backends' words."""
