"""The architectures of dictionaries that can be trained, one file each (`registry`)."""
