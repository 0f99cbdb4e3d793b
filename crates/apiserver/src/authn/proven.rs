//! Tokens whose signature was found to be right, by their digest: a signature is worth as much the
//! second time, and verifying one costs more than all else that a read does.
//!
//! Nothing else about a token is kept. Its times, its audience and what it is bound to are looked at
//! for each request, so that one that is revoked is refused at once.

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

/// The SHA-256 of a token.
pub type Token = [u8; 32];

/// How many are kept: this many of the newest, and up to as many that came before them.
const GENERATION: usize = 8192;

#[derive(Default)]
pub struct Proven(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    new: FxHashSet<Token>,
    old: FxHashSet<Token>,
}

impl Proven {
    /// Whether the signature of this token is right, which is asked only of one that is not known.
    pub fn or_prove(&self, token: &Token, right: impl FnOnce() -> bool) -> bool {
        {
            let mut known = self.0.lock();
            if known.new.contains(token) {
                return true;
            }
            if known.old.contains(token) {
                known.put(*token);
                return true;
            }
        }
        let right = right();
        if right {
            self.0.lock().put(*token);
        }
        right
    }
}

impl Generations {
    fn put(&mut self, token: Token) {
        if self.new.len() >= GENERATION {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Token {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn only_what_was_right_is_known() {
        let proven = Proven::default();
        assert!(!proven.or_prove(&digest(1), || false));
        assert!(!proven.or_prove(&digest(1), || false));
        assert!(proven.or_prove(&digest(1), || true));
        assert!(proven.or_prove(&digest(1), || false));
        assert!(!proven.or_prove(&digest(2), || false));
    }

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let proven = Proven::default();
        for number in 0..5 * GENERATION {
            assert!(proven.or_prove(&digest(number), || true));
            assert!(proven.or_prove(&digest(0), || number == 0));
        }
        assert!(!proven.or_prove(&digest(1), || false));
        let known = proven.0.lock();
        assert!(known.new.len() <= GENERATION && known.old.len() <= GENERATION);
    }
}
