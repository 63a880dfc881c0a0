"""Which plugins are running: finding them (`catalog`), running one (`slot`), swapping many (`slots`), apart (`hosted`)."""
