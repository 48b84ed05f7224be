//! What a member does next. See `decide`.
