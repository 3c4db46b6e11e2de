use std::sync::Arc;

use super::{
    BreakerPolicy, Handle,
    shared::{Lane, Lanes, Listener},
};

/// Which circuit a request belongs to: [`Single`] or [`PerKey`]. Sealed.
pub trait Circuits<Req>: sealed::Sealed {
    #[doc(hidden)]
    fn is_gated(&self) -> bool;
    #[doc(hidden)]
    fn pick(&self, request: &Req) -> Arc<Lane>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Single {}
}

/// One circuit for all requests.
#[derive(Clone, Debug)]
pub struct Single {
    lanes: Lanes,
}

impl Single {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { lanes: Lanes::new(policy) }
    }

    pub(super) fn handle(&self) -> Handle {
        Handle::new(self.lanes.mine().clone())
    }

    pub(super) fn listen(&self, listener: Listener) {
        self.lanes.mine().shared().listen(listener);
    }
}

impl<Req> Circuits<Req> for Single {
    #[inline]
    fn is_gated(&self) -> bool {
        self.lanes.is_gated()
    }

    #[inline]
    fn pick(&self, _: &Req) -> Arc<Lane> {
        self.lanes.mine().clone()
    }
}
