//! Structured values from plain bytes, so that random bytes and those of a fuzzer make the same kinds of values.

/// Answers questions by the bytes it was given, in their order. When they run out every answer is the first one, so
/// that short inputs make plain values.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Answers from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices { bytes }
    }

    /// True when all that follows is plain.
    pub fn is_exhausted(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// False first.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// True in one of `parts` cases, and never without bytes.
    pub fn rarely(&mut self, parts: u8) -> bool {
        self.byte() % parts.max(2) == 1
    }

    /// One of these; the first of them without bytes.
    ///
    /// # Panics
    /// When there are none.
    pub fn one_of<T: Clone>(&mut self, candidates: &[T]) -> T {
        candidates[usize::from(self.byte()) % candidates.len()].clone()
    }

    /// What `make` makes, or nothing.
    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// A number: mostly a small one, now and then one at the edge of its type, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            0..=199 => u64::from(self.byte()),
            200..=219 => u64::from(self.byte()) << (self.byte() % 57),
            220..=239 => self.one_of(&[u64::MAX, u64::MAX - 1, i64::MAX.unsigned_abs(), 1 << 53, 1 << 32, 1 << 31]),
            240..=255 => u64::from_le_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }

    /// The next bytes, at most `most`; their number is a choice too.
    pub fn bytes(&mut self, most: u8) -> &'a [u8] {
        let wanted = usize::from(self.byte() % most.max(1));
        let (taken, rest) = self.bytes.split_at(wanted.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// A short text of any characters.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes(24)).into_owned()
    }

    /// Up to `most` of what `make` makes.
    pub fn several<T>(&mut self, most: u8, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.byte() % most.saturating_add(1);
        (0..count).map(|_| make(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_make_the_same_values_and_no_bytes_make_plain_ones() {
        let bytes: Vec<u8> = (0..=255).collect();
        let draw = |bytes: &[u8]| {
            let mut choices = Choices::new(bytes);
            let flags = choices.several(200, Choices::flag);
            (flags, choices.number(), choices.text(), choices.one_of(&["a", "b"]), choices.maybe(Choices::byte))
        };
        assert_eq!(draw(&bytes), draw(&bytes));
        assert_eq!(draw(&[]), (vec![], 0, String::new(), "a", None));
    }
}
