//! What was read of a body, frame by frame.

use bytes::{Bytes, BytesMut};

// A handle to a frame is 32 bytes and holds on to the buffer the frame was cut from. A body that comes in crumbs would
// cost many times its length, so that crumbs beyond the first thousand are gathered, the only bytes ever copied.
const MANY: usize = 1024;
const SMALL: usize = 64;

// Enough for 64 KiB in the frames of 8 KiB that servers like to read.
const FIRST_ALLOCATION: usize = 8;

/// Data frames in their order, shared with whoever reads them. Empty frames are not among them.
#[derive(Default)]
pub(super) struct Frames {
    count: usize,
    // A body of one frame needs no list.
    first: Bytes,
    more: Vec<Bytes>,
    // Crumbs that belong behind all frames, and count as none until they are `settle`d.
    crumbs: BytesMut,
    len: u64,
}

impl Frames {
    /// Bytes in all frames.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes in the frames from `index` on, once they are settled.
    pub(super) fn len_from(&self, index: usize) -> u64 {
        match index {
            0 => self.len,
            _ => self.more.get(index - 1..).unwrap_or_default().iter().map(|data| data.len() as u64).sum(),
        }
    }

    #[inline]
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Bytes> {
        match index {
            0 if self.count == 0 => None,
            0 => Some(&self.first),
            _ => self.more.get(index - 1),
        }
    }

    /// The frame at `index`, for the last time: an empty one is left in its place.
    pub(super) fn take(&mut self, index: usize) -> Option<Bytes> {
        match index {
            0 if self.count == 0 => None,
            0 => Some(&mut self.first),
            _ => self.more.get_mut(index - 1),
        }
        .map(std::mem::take)
    }

    #[inline]
    pub(super) fn push(&mut self, data: &Bytes) {
        self.len = self.len.saturating_add(data.len() as u64);
        if data.len() < SMALL || !self.crumbs.is_empty() {
            self.push_small(data);
        } else {
            self.append(data.clone());
        }
    }

    fn push_small(&mut self, data: &Bytes) {
        if data.len() < SMALL && self.count >= MANY {
            self.crumbs.extend_from_slice(data);
        } else {
            self.settle();
            self.append(data.clone());
        }
    }

    /// Makes a frame of the crumbs. After this, whatever was pushed is in a frame.
    pub(super) fn settle(&mut self) {
        if !self.crumbs.is_empty() {
            let crumbs = self.crumbs.split().freeze();
            self.append(crumbs);
        }
    }

    #[inline]
    fn append(&mut self, data: Bytes) {
        if self.count == 0 {
            self.first = data;
        } else {
            if self.more.capacity() == 0 {
                self.more.reserve_exact(FIRST_ALLOCATION);
            }
            self.more.push(data);
        }
        self.count += 1;
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
        let mut frames = Frames::default();
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
        assert_eq!(frames.len(), sent.len() as u64);
        assert_eq!(frames.len_from(MANY), 100 + SMALL as u64 + 1);
        assert_eq!(frames.len_from(MANY + 7), 0);
    }

    #[test]
    fn a_frame_is_shared_and_never_copied_and_taken_once() {
        let data = Bytes::from(vec![1, 2, 3]);
        let mut frames = Frames::default();
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
