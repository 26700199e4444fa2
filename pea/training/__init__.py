"""The student's step, the signals it is compared with, the losses, schedules, and saved states."""
