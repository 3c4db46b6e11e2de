use std::{error::Error, fmt};

/// A request body that can be sent again: how it is kept while an attempt is under way, and how the bodies of
/// later attempts come from what was kept.
///
/// Whatever is `Clone` is kept as a clone: `Full<Bytes>`, `Empty`, strings, `()`. A streaming body is not; wrapped in
/// a [`ReplayBody`](super::ReplayBody) it is kept while the first attempt streams it. A body type of your own that is
/// neither implements this trait.
///
/// It is meant for the [`Keep`](crate::Keep) of a whole request, whose moments it follows: [`keep`](Self::keep)
/// before the first attempt, [`check`](Self::check) when a failed attempt might be followed by another, [`take_over`](Self::take_over) when it
/// will be, and [`again`](Self::again) when that one is made.
///
/// ```
/// use tower_tenacity::{Keep, body::RepeatBody};
///
/// /// A number and its body; the number is copied, the body kept in whatever way it can be.
/// struct Numbered<B>(u32, B);
/// struct KeepNumbered;
///
/// impl<B: RepeatBody> Keep<Numbered<B>> for KeepNumbered {
///     type Kept = (u32, B::Kept);
///     fn first(&self, Numbered(number, body): Numbered<B>) -> (Numbered<B>, Option<Self::Kept>) {
///         let (body, kept) = body.keep();
///         (Numbered(number, body), kept.map(|kept| (number, kept)))
///     }
///     fn again(&self, (number, kept): Self::Kept, last: bool) -> (Numbered<B>, Option<Self::Kept>) {
///         let (body, kept) = B::again(kept, last);
///         (Numbered(number, body), kept.map(|kept| (number, kept)))
///     }
///     fn is_repeatable(&self, (_, kept): &Self::Kept) -> bool {
///         B::check(kept).is_ok()
///     }
///     fn take_over(&self, (_, kept): &mut Self::Kept) -> bool {
///         B::take_over(kept).is_ok()
///     }
/// }
///
/// let (first, kept) = KeepNumbered.first(Numbered(1, "hello"));
/// let (second, kept) = KeepNumbered.again(kept.unwrap(), true);
/// assert_eq!((first.1, second.1), ("hello", "hello"));
/// assert!(kept.is_none());
/// ```
pub trait RepeatBody: Sized {
    /// What is held while an attempt is under way.
    type Kept;

    /// The body for the first attempt, and what is kept of it. `None` if it is known that it cannot be sent twice; it
    /// is sent once all the same.
    fn keep(self) -> (Self, Option<Self::Kept>);

    /// Whether another attempt could send the body now, and if not, why not. Asked when an attempt has ended.
    ///
    /// # Errors
    ///
    /// Where it answers with a [`NotRepeatable`], the request must not be sent again.
    fn check(kept: &Self::Kept) -> Result<(), NotRepeatable>;

    /// Another attempt was decided: the one before, which may live on in a connection, reads no more. Defaults to what
    /// [`check`](Self::check) says.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    fn take_over(kept: &mut Self::Kept) -> Result<(), NotRepeatable> {
        Self::check(kept)
    }

    /// The body for a later attempt. `last` says that no attempt can follow, so that nothing needs to be kept.
    ///
    /// It always gives a body, as [`Keep::again`](crate::Keep::again) does. Where [`check`](Self::check) answers that it cannot be sent again,
    /// reading the body given here fails with that [`NotRepeatable`]. It is never cut short.
    fn again(kept: Self::Kept, last: bool) -> (Self, Option<Self::Kept>);
}

/// `n` attempts make `n − 1` clones. The original is sent first.
impl<B: Clone> RepeatBody for B {
    type Kept = B;

    fn keep(self) -> (Self, Option<B>) {
        let kept = self.clone();
        (self, Some(kept))
    }

    fn check(_: &B) -> Result<(), NotRepeatable> {
        Ok(())
    }

    fn again(kept: B, last: bool) -> (Self, Option<B>) {
        if last { (kept, None) } else { (kept.clone(), Some(kept)) }
    }
}

/// Why a body cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotRepeatable {
    /// More of it was read than may be kept.
    TooLong,
    /// It failed while it was read: its source, often the client of this server, is at fault, and reading it again
    /// cures nothing.
    Failed,
}

impl fmt::Display for NotRepeatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the body is too long to be sent again",
            Self::Failed => "the body failed while an earlier attempt read it",
        })
    }
}

impl Error for NotRepeatable {}
