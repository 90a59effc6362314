//! Damaged files made up for tests, the same on every run.

/// A xorshift generator.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }

    /// A copy with some bytes, numbers or parts changed.
    pub(crate) fn damaged(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(3) {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => bytes.truncate(at),
            1 => {
                let end = at + self.below(bytes.len() - at);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            2 => {
                let byte = u8::try_from(self.below(256)).unwrap();
                bytes.get_mut(at).into_iter().for_each(|old| *old = byte);
            }
            width => {
                let width = [2, 4, 8][width - 3];
                let number = self.number(bytes.len()).to_le_bytes();
                let at = at / width * width;
                let field = bytes.get_mut(at..at + width);
                field
                    .into_iter()
                    .for_each(|field| field.copy_from_slice(&number[..width]));
            }
        }
    }

    /// One that a reader may stumble over in a file of this length.
    fn number(&mut self, length: usize) -> u64 {
        let length = length as u64;
        let known = [
            0,
            1,
            4,
            length - length.min(1),
            length,
            length + 1,
            0xffff,
            0x7fff_ffff,
            0xffff_ffff,
            0xffff_fff0,
            u64::MAX,
            u64::MAX / 2 + 1,
        ];
        match self.below(known.len() + 1) {
            last if last == known.len() => self.below(4096) as u64,
            at => known[at],
        }
    }
}
