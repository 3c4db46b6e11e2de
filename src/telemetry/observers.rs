use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Who is told of what happens; looked at only where something does.
pub(crate) struct Observers<O: ?Sized>(Mutex<Arc<[Arc<O>]>>);

impl<O: ?Sized> Observers<O> {
    pub(crate) fn add(&self, observer: Arc<O>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.iter().cloned().chain([observer]).collect();
    }

    /// Those who are there now: they are told under no lock.
    pub(crate) fn all(&self) -> Arc<[Arc<O>]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<O: ?Sized> Default for Observers<O> {
    fn default() -> Self {
        Self(Mutex::new(Arc::new([])))
    }
}

impl<O: ?Sized> Clone for Observers<O> {
    /// The same observers, and a list of its own.
    fn clone(&self) -> Self {
        Self(Mutex::new(self.all()))
    }
}

impl<O: ?Sized> fmt::Debug for Observers<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").field("len", &self.all().len()).finish()
    }
}
