//! Text to token ids and back, exactly, for the MPT family.
