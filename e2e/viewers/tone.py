"""What a sound consists of."""

import math


def loudest_hertz(samples, rate):
    """The loudest of the tones 200 to 1000 Hz in steps of 5 Hz (Goertzel)."""
    if not samples or not rate:
        return 0

    def power(hertz):
        coefficient = 2 * math.cos(2 * math.pi * hertz / rate)
        before, last = 0.0, 0.0
        for sample in samples[:4800]:
            before, last = last, sample + coefficient * last - before
        return before**2 + last**2 - coefficient * before * last

    return max(range(200, 1001, 5), key=power)
