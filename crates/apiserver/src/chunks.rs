//! Big answers in pieces of a bounded size, made while they are sent.
//!
//! A list of a whole fleet is hundreds of megabytes. Its objects lie in the store already; only the piece that is being
//! sent is copied.

use std::{collections::VecDeque, vec};

use bytes::{BufMut, Bytes, BytesMut};

/// Size of the buffers that a big list is sent in. A piece is greater only if one object is.
const PIECE: usize = 256 * 1024;

/// An answer whose size is known and whose bytes are made when they are needed.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    ready: VecDeque<Bytes>,
    items: vec::IntoIter<Bytes>,
    /// Bytes of every item that `{` is sent for.
    cut: usize,
    /// What is sent before the next item.
    before: &'static [u8],
    tail: &'static [u8],
    left: u64,
}

impl Chunks {
    /// A JSON list: the head up to the bracket that opens its items, the items, and the end. Of every item `cut` bytes at
    /// the beginning (its kind and version) are sent as `{`, if there are any.
    pub fn list(head: &str, items: Vec<Bytes>, cut: usize) -> Chunks {
        const TAIL: &[u8] = b"]}\n";
        let of_items: usize = items.iter().map(|item| sent(item, cut)).sum();
        let size = head.len() + of_items + items.len().saturating_sub(1) + TAIL.len();
        Chunks {
            ready: [Bytes::copy_from_slice(head.as_bytes())].into(),
            items: items.into_iter(),
            cut,
            before: b"",
            tail: TAIL,
            left: size as u64,
        }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<const N: usize> From<[Bytes; N]> for Chunks {
    fn from(ready: [Bytes; N]) -> Self {
        VecDeque::from(ready).into()
    }
}

impl From<VecDeque<Bytes>> for Chunks {
    fn from(ready: VecDeque<Bytes>) -> Self {
        Chunks {
            left: ready.iter().map(|piece| piece.len() as u64).sum(),
            ready,
            ..Chunks::default()
        }
    }
}

fn sent(item: &Bytes, cut: usize) -> usize {
    match cut {
        0 => item.len(),
        _ => 1 + item.len().saturating_sub(cut),
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let listed = self.items.len() > 0 || !self.tail.is_empty();
        if !listed {
            let piece = self.ready.pop_front()?;
            self.left -= piece.len() as u64;
            return Some(piece);
        }
        let room = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = BytesMut::with_capacity(room);
        for ready in self.ready.drain(..) {
            piece.put(ready);
        }
        while let Some(item) = self.items.as_slice().first() {
            let more = self.before.len() + sent(item, self.cut);
            if !piece.is_empty() && piece.len() + more > PIECE {
                break;
            }
            piece.put_slice(self.before);
            if self.cut > 0 {
                piece.put_u8(b'{');
            }
            piece.put_slice(item.get(self.cut..).unwrap_or_default());
            self.before = b",";
            self.items.next();
        }
        if self.items.len() == 0 {
            piece.put_slice(std::mem::take(&mut self.tail));
        }
        self.left -= piece.len() as u64;
        Some(piece.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_head_its_items_and_its_end() {
        let head = r#"{"items":["#;
        let named =
            |i: usize, size: usize| format!(r#"{{"kind":"A","i":{i},"x":"{}"}}"#, "y".repeat(size));
        let cut = r#"{"kind":"A","#.len();
        // (sizes of the items, pieces)
        let cases: [(&[usize], usize); 6] = [
            (&[], 1),
            (&[1], 1),
            (&[1, 2, 3], 1),
            (&[PIECE / 2; 5], 5),
            (&[PIECE * 2, 1, PIECE * 2], 4),
            (&[100; 10_000], 5),
        ];
        for (sizes, pieces) in cases {
            for cut in [0, cut] {
                let items: Vec<String> = sizes
                    .iter()
                    .enumerate()
                    .map(|(i, size)| named(i, *size))
                    .collect();
                let shown: Vec<String> = items
                    .iter()
                    .map(|item| match cut {
                        0 => item.clone(),
                        _ => format!("{{{}", &item[cut..]),
                    })
                    .collect();
                let wanted = format!("{head}{}]}}\n", shown.join(","));
                let mut chunks =
                    Chunks::list(head, items.into_iter().map(Bytes::from).collect(), cut);
                let mut whole = Vec::new();
                let mut made = 0;
                loop {
                    assert_eq!(chunks.left(), (wanted.len() - whole.len()) as u64);
                    let Some(piece) = chunks.next() else { break };
                    assert!(!piece.is_empty());
                    whole.extend_from_slice(&piece);
                    made += 1;
                }
                assert_eq!(String::from_utf8(whole).unwrap(), wanted);
                assert_eq!(made, pieces, "{} items", sizes.len());
            }
        }
    }

    #[test]
    fn pieces_that_are_there_come_as_they_are() {
        let mut chunks = Chunks::from([Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!(chunks.left(), 3);
        assert_eq!(chunks.next().as_deref(), Some("ab".as_bytes()));
        assert_eq!(
            (chunks.left(), chunks.by_ref().count(), chunks.left()),
            (1, 1, 0)
        );
    }
}
