"""The commands of `sapwood`, one file each. Importing them loads neither torch nor a web
framework."""
