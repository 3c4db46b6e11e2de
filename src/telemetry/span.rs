use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Gives what passes through it a span: each call outside of a retry layer, each attempt inside of it.
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_tenacity::{RetryLayer, RetryPolicy, telemetry::SpanLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(SpanLayer::call("prices"))
///     .layer(RetryLayer::new(RetryPolicy::new()))
///     .layer(SpanLayer::attempt("prices"))
///     .service(service_fn(|item: u32| async move { Ok::<_, std::io::Error>(item * 2) }));
/// assert_eq!(service.oneshot(21).await.unwrap(), 42);
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SpanLayer {
    kind: Kind,
    name: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Call,
    Attempt,
}

impl SpanLayer {
    /// A span `call` at level info for everything that passes, with the field `name`.
    #[must_use]
    pub const fn call(name: &'static str) -> Self {
        Self { kind: Kind::Call, name }
    }

    /// A span `attempt` at level debug for everything that passes, with the field `name`.
    #[must_use]
    pub const fn attempt(name: &'static str) -> Self {
        Self { kind: Kind::Attempt, name }
    }

    fn span(self) -> tracing::Span {
        match self.kind {
            Kind::Call => tracing::info_span!(target: "tower_tenacity", "call", name = self.name),
            Kind::Attempt => tracing::debug_span!(target: "tower_tenacity", "attempt", name = self.name),
        }
    }
}

impl<S> Layer<S> for SpanLayer {
    type Service = Span<S>;

    fn layer(&self, inner: S) -> Span<S> {
        Span { layer: *self, inner }
    }
}

/// A service whose calls have a span; made by [`SpanLayer`].
#[derive(Clone, Debug)]
pub struct Span<S> {
    layer: SpanLayer,
    inner: S,
}

impl<S> Span<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the spans.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req> Service<Req> for Span<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SpanFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let span = self.layer.span();
        let inner = span.in_scope(|| self.inner.call(request));
        SpanFuture { inner, span }
    }
}

pin_project! {
    /// The future of a call that has a span.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct SpanFuture<F> {
        #[pin]
        inner: F,
        span: tracing::Span,
    }
}

impl<F: Future> Future for SpanFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.span.in_scope(|| this.inner.poll(cx))
    }
}
