"""What stage 06 shows: pictures, the report, and the hand-over to other tools."""
