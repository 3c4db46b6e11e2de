use std::{fmt, marker::PhantomData, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_layer::Layer;

use super::{CheckAsync, CheckFn, Extract, NoCheck, Problems, Reask, SchemaError, schema::Schema};

/// Turns a service that answers in text into one that answers with a `T`; see the [module](crate::extract).
pub struct ExtractLayer<T, C = NoCheck> {
    pub(super) settings: Settings,
    pub(super) check: C,
    pub(super) value: PhantomData<fn() -> T>,
}

type OnReask = Arc<dyn Fn(&Reask<'_>) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) schema: Arc<Result<Schema, SchemaError>>,
    pub(super) reasks: u32,
    pub(super) on_reask: Option<OnReask>,
}

impl<T: JsonSchema + DeserializeOwned> ExtractLayer<T> {
    /// Answers must fit the schema of `T`, and `T`. By default the model is asked again twice.
    ///
    /// A type whose schema Gemini cannot be told fails each call before anything is sent; see [`schema`](Self::schema).
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings { schema: Arc::new(Schema::of::<T>()), reasks: 2, on_reask: None };
        Self { settings, check: NoCheck, value: PhantomData }
    }
}

impl<T: JsonSchema + DeserializeOwned> Default for ExtractLayer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, C> ExtractLayer<T, C> {
    /// How often the model is asked again after an answer that does not fit. Default: 2. With 0 there is one answer.
    ///
    /// This is a budget of its own: retries of the transport do not count, and neither does the first question. Past the
    /// [deadline](crate::gemini::GenerateContent::deadline) of the question the model is not asked again.
    #[must_use]
    pub fn reasks(mut self, reasks: u32) -> Self {
        self.settings.reasks = reasks;
        self
    }

    /// Calls `f` whenever the model is about to be asked again: to log it, to count it.
    #[must_use]
    pub fn on_reask(mut self, f: impl Fn(&Reask<'_>) + Send + Sync + 'static) -> Self {
        self.settings.on_reask = Some(Arc::new(f));
        self
    }

    /// Business rules: `f` looks at each value that fits the type. What it finds wrong is told to the model.
    #[must_use]
    pub fn check<F>(self, f: F) -> ExtractLayer<T, CheckFn<F>>
    where
        F: Fn(&T) -> Result<(), Problems>,
    {
        self.check_with(CheckFn(f))
    }

    /// As [`check`](Self::check), for rules that have to wait: a look into a database, another service. `f` takes
    /// the value and returns it, mended if it likes.
    #[must_use]
    pub fn check_async<F, Fut>(self, f: F) -> ExtractLayer<T, CheckAsync<F>>
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<T, Problems>>,
    {
        self.check_with(CheckAsync(f))
    }

    /// As [`check`](Self::check), for rules with a type of their own.
    #[must_use]
    pub fn check_with<C2>(self, check: C2) -> ExtractLayer<T, C2> {
        ExtractLayer { settings: self.settings, check, value: PhantomData }
    }

    /// The schema as it is sent.
    ///
    /// # Errors
    /// The type cannot be put to Gemini without losing something.
    pub fn schema(&self) -> Result<&Value, SchemaError> {
        self.settings.schema.as_ref().as_ref().map(|schema| &schema.sent).map_err(Clone::clone)
    }
}

impl<T, C: Clone> Clone for ExtractLayer<T, C> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), check: self.check.clone(), value: PhantomData }
    }
}

impl<T, C: fmt::Debug> fmt::Debug for ExtractLayer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtractLayer")
            .field("value", &std::any::type_name::<T>())
            .field("reasks", &self.settings.reasks)
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}

impl<T, C: Clone, S> Layer<S> for ExtractLayer<T, C> {
    type Service = Extract<T, S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Extract::new(self.clone(), inner)
    }
}
