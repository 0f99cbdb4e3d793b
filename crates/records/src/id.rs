//! Ids that are made from what a record is about: made again, they are the same.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The id of what happened `at` a time to an object, in the generation of it that the change made, told apart
/// from whatever else happened in that generation by `parts` (its UID, the verb …).
///
/// It has the form of a UUID of version 7: 48 bits of milliseconds, so that ids sort by time; 12 bits of the
/// generation, so that what happened to one object within a second, which is as fine as Kubernetes tells time,
/// sorts too; 62 bits of a digest.
pub fn of(at: Timestamp, generation: i64, parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(generation.to_le_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&digest.finalize()[..8]);
    let time = (at.as_millisecond().max(0) as u128) & 0xffff_ffff_ffff;
    let order = (generation as u128) & 0xfff;
    let variant = (0b10 << 62) | (u64::from_be_bytes(low) >> 2);
    Uuid::from_u128(time << 80 | 7 << 76 | order << 64 | u128::from(variant)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_again_and_sort_by_time() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let id = of(at(1_700_000_000_000), 3, &["uid", "pause"]);
        assert_eq!(id, of(at(1_700_000_000_000), 3, &["uid", "pause"]));
        let parsed = Uuid::parse_str(&id).unwrap();
        assert_eq!(parsed.get_version_num(), 7);
        assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
        let others = [
            of(at(1_700_000_000_000), 3, &["uid", "abort"]),
            of(at(1_700_000_000_000), 3, &["ui", "dabort"]),
            of(at(1_700_000_000_000), 4, &["uid", "pause"]),
            of(at(1_700_000_000_001), 3, &["uid", "pause"]),
        ];
        assert!(others.iter().all(|other| *other != id));
        assert_ne!(others[0], others[1]);
        assert!(id < others[2] && others[2] < others[3]);
    }
}
