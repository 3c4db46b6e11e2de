//! What was read of a body, frame by frame.

use bytes::{Bytes, BytesMut};

// A handle to a frame is 32 bytes and holds on to the buffer the frame was cut from. A body that comes in crumbs would
// cost many times its length, so that crumbs beyond the first thousand are gathered, the only bytes ever copied.
const MANY: usize = 1024;
const SMALL: usize = 64;

// What the list of handles begins with: an eighth of the length of the frames it is for, which for large ones is all the list
// they will need, and never less or more than this.
const BYTES_PER_HANDLE: usize = 8 * size_of::<Bytes>();
const FEWEST: usize = 8;
const MOST: usize = 64;

/// Data frames in their order, shared with whoever reads them. Empty frames are not among them.
pub(super) struct Frames {
    // A body of one frame needs no list. Empty until there is one.
    first: Bytes,
    more: Vec<Bytes>,
    // Crumbs that belong behind all frames, and count as none until they are `settle`d.
    crumbs: BytesMut,
    // How many bytes there may be beside those that are here.
    room: u64,
    // Frames of this length or more just go on the list; with others there is more to do.
    plain: usize,
    has_first: bool,
}

impl Frames {
    /// For so many bytes.
    pub(super) fn new(cap: u64) -> Self {
        Self {
            first: Bytes::new(),
            more: Vec::new(),
            crumbs: BytesMut::new(),
            room: cap,
            plain: usize::MAX,
            has_first: false,
        }
    }

    /// Bytes in the frames from `index` on, once they are settled.
    pub(super) fn len_from(&self, index: usize) -> u64 {
        let first = if index == 0 { self.first.len() as u64 } else { 0 };
        let more = self.more.get(index.saturating_sub(1)..).unwrap_or_default();
        first + more.iter().map(|data| data.len() as u64).sum::<u64>()
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.has_first) + self.more.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Bytes> {
        match index {
            0 => Some(&self.first).filter(|_| self.has_first),
            _ => self.more.get(index - 1),
        }
    }

    /// The frame at `index`, for the last time: an empty one is left in its place.
    pub(super) fn take(&mut self, index: usize) -> Option<Bytes> {
        match index {
            0 => Some(&mut self.first).filter(|_| self.has_first),
            _ => self.more.get_mut(index - 1),
        }
        .map(std::mem::take)
    }

    /// Keeps a frame, if there is room for it.
    #[inline]
    pub(super) fn push(&mut self, data: &Bytes) -> bool {
        let Some(room) = self.room.checked_sub(data.len() as u64) else { return false };
        self.room = room;
        if data.len() >= self.plain {
            self.more.push(data.clone());
        } else {
            self.push_other(data);
        }
        true
    }

    #[inline(never)]
    fn push_other(&mut self, data: &Bytes) {
        if data.is_empty() {
            return;
        }
        if data.len() < SMALL && self.count() >= MANY {
            self.crumbs.extend_from_slice(data);
            self.plain = usize::MAX;
        } else {
            self.settle();
            self.append(data.clone());
        }
    }

    /// Makes a frame of the crumbs. After this, whatever was pushed is in a frame.
    #[inline]
    pub(super) fn settle(&mut self) {
        if !self.crumbs.is_empty() {
            self.gather();
        }
    }

    #[cold]
    fn gather(&mut self) {
        let crumbs = self.crumbs.split().freeze();
        self.append(crumbs);
    }

    fn append(&mut self, data: Bytes) {
        if self.has_first {
            if self.more.capacity() == 0 {
                let worth = (data.len() / BYTES_PER_HANDLE).clamp(FEWEST, MOST);
                // No more than there can be of this length.
                let fit = usize::try_from(self.room / data.len().max(1) as u64).unwrap_or(MOST);
                self.more.reserve_exact(worth.min(fit.saturating_add(1)));
            }
            self.more.push(data);
            self.plain = SMALL;
        } else {
            self.first = data;
            self.has_first = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frames: &Frames) -> Vec<u8> {
        (0..frames.count()).flat_map(|index| frames.get(index).unwrap().to_vec()).collect()
    }

    #[test]
    fn crumbs_are_gathered_in_their_order() {
        let mut frames = Frames::new(u64::MAX);
        let mut sent = Vec::new();
        let crumb = Bytes::from_static(b"x");
        for _ in 0..MANY + 100 {
            frames.push(&crumb);
            sent.extend_from_slice(&crumb);
        }
        assert_eq!(frames.count(), MANY);
        let large = Bytes::from(vec![b'y'; SMALL]);
        frames.push(&large);
        sent.extend_from_slice(&large);
        assert_eq!(frames.count(), MANY + 2, "the gathered crumbs, then the large frame");
        frames.push(&crumb);
        sent.extend_from_slice(&crumb);
        frames.settle();
        frames.settle();
        assert_eq!(frames.count(), MANY + 3);
        assert_eq!(all(&frames), sent);
        assert_eq!(frames.len_from(0), sent.len() as u64);
        assert_eq!(frames.len_from(MANY), 100 + SMALL as u64 + 1);
        assert_eq!(frames.len_from(MANY + 7), 0);
    }

    #[test]
    fn the_list_is_as_large_as_it_is_worth() {
        for (length, cap, expected) in [
            (64, u64::MAX, 8),
            (8 << 10, u64::MAX, 32),
            (16 << 10, 1 << 20, 63),
            (1 << 20, u64::MAX, 64),
            (16 << 10, 64 << 10, 3),
            (40, 80, 1),
        ] {
            let mut frames = Frames::new(cap);
            let data = Bytes::from(vec![b'x'; length]);
            assert!(frames.push(&data));
            assert_eq!(frames.more.capacity(), 0, "one frame needs no list");
            assert!(frames.push(&data));
            assert_eq!(frames.more.capacity(), expected, "{length} of {cap}");
        }
    }

    #[test]
    fn there_is_no_room_for_more_than_the_cap() {
        let mut frames = Frames::new(5);
        let two = Bytes::from_static(b"ab");
        assert!(frames.push(&two) && frames.push(&Bytes::new()) && frames.push(&two));
        assert!(!frames.push(&two));
        assert!(frames.push(&Bytes::from_static(b"c")) && frames.push(&Bytes::new()));
        assert_eq!((frames.count(), frames.len_from(0), frames.len_from(1)), (3, 5, 3));
    }

    #[test]
    fn a_frame_is_shared_and_never_copied_and_taken_once() {
        let data = Bytes::from(vec![1, 2, 3]);
        let mut frames = Frames::new(u64::MAX);
        frames.push(&data);
        frames.push(&data);
        for index in 0..2 {
            assert_eq!(frames.get(index).unwrap().as_ptr(), data.as_ptr());
            assert_eq!(frames.take(index).unwrap().as_ptr(), data.as_ptr());
            assert!(frames.get(index).unwrap().is_empty());
        }
        assert!(frames.get(2).is_none() && frames.take(2).is_none());
    }
}
