/// Any error, as tower's own layers return it. What a layer of this crate adds is found in it by `downcast_ref`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
