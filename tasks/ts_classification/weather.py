"""Days of weather at New York's three airports: which one is it? The data set that comes with the install.

Shapes: M days, 24 steps, 9 quantities.
"""

from pathlib import Path

import numpy as np

from tasks.ts_classification.cases import Cases, checked, select
from tasks.ts_forecast.readers import QUANTITIES, READERS, STATIONS

EST_HOURS = 5  # behind UTC: a day starts at 05:00 UTC, the whole year
LAST_TRAINING_DAY = 20  # of a month; the rest of it is for testing, so that both parts have every season


def weather_days(path: Path) -> tuple[Cases, Cases]:
    """(training, test) days of 2013: hourly weather of EWR, JFK or LGA, cleaned as in task=ts_forecast.

    Training has the days 1 to 20 of every month, test the days from 21 on; a day gives three cases, one per airport.
    """
    series = READERS["nycflights13"](path)
    local = series.dates - np.timedelta64(EST_HOURS, "h")
    first = int(np.argmax(local.hour == 0))
    days = (len(local) - first) // 24
    used = slice(first, first + 24 * days)
    values = series.values[used].reshape(days, 24, len(STATIONS), len(QUANTITIES))
    dates = local[used][::24]
    cases = checked(
        values.transpose(0, 2, 1, 3).reshape(-1, 24, len(QUANTITIES)),
        list(STATIONS) * days,
        str(path),
        variates=QUANTITIES,
        names=[f"{day:%Y-%m-%d} {station}" for day in dates for station in STATIONS],
    )
    training = np.repeat(dates.day <= LAST_TRAINING_DAY, len(STATIONS))
    return select(cases, np.flatnonzero(training)), select(cases, np.flatnonzero(~training))
