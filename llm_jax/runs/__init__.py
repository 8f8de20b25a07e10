"""What every verb needs of the files that it leaves behind: whole or not at all."""
