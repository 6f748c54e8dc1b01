"""What `data` prints: counts, adversarial validation of train against test. What `init` guesses.

Rooms in reading order: counts, shift, audit, mend, peek, findings, guess_entities, guess,
guessed_profile.

Open: audit, shift, mend, guessed_profile.
"""
