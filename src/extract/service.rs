use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    Check, ExtractError, ExtractLayer, Extracted, Failure, NoCheck, Reask, Report, answer::read, layer::Settings,
};
use crate::gemini::{Content, GenerateContent, GenerateContentResponse};

// A service that answers at once, and never well, would keep `poll` for as long as the budget lasts.
const ANSWERS_PER_POLL: u32 = 32;

/// Asks for a value of type `T` until the answer fits; see the [module](crate::extract).
pub struct Extract<T, S, C = NoCheck> {
    layer: ExtractLayer<T, C>,
    inner: S,
}

impl<T, S, C> Extract<T, S, C> {
    /// Asks `inner`.
    pub const fn new(layer: ExtractLayer<T, C>, inner: S) -> Self {
        Self { layer, inner }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, taken out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<T, S: Clone, C: Clone> Clone for Extract<T, S, C> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), inner: self.inner.clone() }
    }
}

impl<T, S: fmt::Debug, C: fmt::Debug> fmt::Debug for Extract<T, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extract").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

impl<T, S, C> Service<GenerateContent> for Extract<T, S, C>
where
    T: DeserializeOwned,
    S: Service<GenerateContent, Response = GenerateContentResponse> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    C: Check<T> + Clone,
{
    type Response = Extracted<T>;
    type Error = ExtractError;
    type Future = ResponseFuture<T, S, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExtractError>> {
        self.inner.poll_ready(cx).map_err(|error| ExtractError::new(Failure::Service(error.into()), Report::default()))
    }

    fn call(&mut self, question: GenerateContent) -> Self::Future {
        let settings = self.layer.settings.clone();
        let schema = settings.schema.as_ref().as_ref().map_err(|error| Failure::Schema(error.clone()));
        let (state, spare) =
            match schema.and_then(|schema| question.is_open().map(|()| schema).map_err(Failure::Request)) {
                Err(error) => (State::Refused { error: Some(error) }, None),
                Ok(schema) => {
                    let question = question.json_schema(schema.sent.clone());
                    // The instance that was polled ready is the one that is called; the clone is for reasks.
                    let answer = self.inner.call(question.clone());
                    let spare = (settings.reasks > 0).then(|| Spare { question, service: self.inner.clone() });
                    (State::Asking { answer }, spare)
                }
            };
        ResponseFuture {
            state,
            spare,
            settings,
            check: self.layer.check.clone(),
            said: None,
            reasks: 0,
            report: Report::default(),
        }
    }
}

pin_project! {
    /// The future of a call to an [`Extract`] service. Dropping it cancels the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<T, S, C>
    where
        S: Service<GenerateContent>,
        C: Check<T>,
    {
        #[pin]
        state: State<S::Future, C::Future>,
        spare: Option<Spare<S>>,
        settings: Settings,
        check: C,
        // The model's turn that is being checked, to be quoted if it has to be corrected.
        said: Option<Content>,
        reasks: u32,
        report: Report,
    }
}

pin_project! {
    // Asking -> Checking, and, if the answer does not fit, -> Readying -> Asking.
    #[project = StateProj]
    enum State<F, K> {
        Asking { #[pin] answer: F },
        Checking { #[pin] verdict: K },
        Readying { next: Option<GenerateContent> },
        Refused { error: Option<Failure> },
    }
}

// The question as the caller asked it, and whom to ask again.
struct Spare<S> {
    question: GenerateContent,
    service: S,
}

// A function call can only be followed by the function's response: the API refuses a plain turn of the user's after it.
fn is_quotable(content: &Content) -> bool {
    !content.parts().is_empty() && content.parts().iter().all(|part| part.function_call().is_none())
}

impl<T, S, C> Future for ResponseFuture<T, S, C>
where
    T: DeserializeOwned,
    S: Service<GenerateContent, Response = GenerateContentResponse>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    C: Check<T>,
{
    type Output = Result<Extracted<T>, ExtractError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut answers = 0;
        loop {
            let failure = match this.state.as_mut().project() {
                StateProj::Asking { answer } => match ready!(answer.poll(cx)) {
                    Err(error) => Failure::Service(error.into()),
                    Ok(response) => {
                        answers += 1;
                        this.report.push(&response);
                        let content = response.candidates().first().and_then(|candidate| candidate.content());
                        *this.said = content.filter(|content| is_quotable(content)).cloned();
                        let value = match &*this.settings.schema {
                            Ok(schema) => read(&response, &schema.validator),
                            Err(error) => Err(Failure::Schema(error.clone())),
                        };
                        match value {
                            Ok(value) => {
                                let number = this.reasks.saturating_add(1);
                                this.state.set(State::Checking { verdict: this.check.check(value, number) });
                                continue;
                            }
                            Err(failure) => failure,
                        }
                    }
                },
                StateProj::Checking { verdict } => match ready!(verdict.poll(cx)) {
                    Ok(value) => return Poll::Ready(Ok(Extracted::new(value, std::mem::take(this.report)))),
                    Err(problems) => Failure::Rejected(problems),
                },
                StateProj::Readying { .. } if answers == ANSWERS_PER_POLL => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                StateProj::Readying { next } => {
                    let (Some(spare), true) = (this.spare.as_mut(), next.is_some()) else {
                        unreachable!("a reask has a question and somebody to ask");
                    };
                    match ready!(spare.service.poll_ready(cx)) {
                        Err(error) => Failure::Service(error.into()),
                        Ok(()) => {
                            let Some(next) = next.take() else { unreachable!("it was there a moment ago") };
                            let answer = spare.service.call(next);
                            this.state.set(State::Asking { answer });
                            continue;
                        }
                    }
                }
                StateProj::Refused { error } => match error.take() {
                    Some(error) => error,
                    None => panic!("polled after it was finished"),
                },
            };

            if !matches!(failure, Failure::Service(_)) {
                this.report.fail(&failure);
            }
            let spare = this.spare.as_ref().filter(|spare| {
                failure.is_curable() && *this.reasks < this.settings.reasks && has_time(&spare.question)
            });
            let Some(spare) = spare else {
                // Nothing of the last answer is held by a future that is finished.
                this.state.set(State::Refused { error: None });
                return Poll::Ready(Err(ExtractError::new(failure, std::mem::take(this.report))));
            };
            *this.reasks += 1;
            // The model's own turn, unchanged but for a missing role, then one turn of the user's. Where there is no turn
            // to correct, the same question again.
            let said = this.said.take();
            let question = said.as_ref().and(failure.problems()).map(super::Problems::question);
            if let Some(on_reask) = &this.settings.on_reask {
                on_reask(&Reask { number: *this.reasks, failure: &failure, question: question.as_deref() });
            }
            let next = match (said, question) {
                (Some(said), Some(question)) => {
                    spare.question.clone().content(said.or_models()).content(Content::user(question))
                }
                _ => spare.question.clone(),
            };
            this.state.set(State::Readying { next: Some(next) });
        }
    }
}

// What is asked too late is paid for, and nobody waits for the answer.
fn has_time(question: &GenerateContent) -> bool {
    question.until().is_none_or(|deadline| !deadline.time_left(Instant::now()).is_zero())
}

impl<T, S, C> fmt::Debug for ResponseFuture<T, S, C>
where
    S: Service<GenerateContent>,
    C: Check<T>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("reasks", &self.reasks).finish_non_exhaustive()
    }
}
