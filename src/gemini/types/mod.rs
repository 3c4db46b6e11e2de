//! What travels on the wire.

mod content;
mod lenient;
mod request;
mod response;
mod usage;

pub use content::{Content, FunctionCall, Part, Role};
pub use request::GenerateContent;
pub use response::{
    Answer, BlockReason, Candidate, FinishReason, GenerateContentResponse, NoAnswer, PromptFeedback,
};
pub use usage::Usage;

/// An enum that the server may extend: names it knows, and `Other` for those it does not.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
            /// A value that was not known when this was written.
            Other(String),
        }

        impl $name {
            /// The name as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use open_enum;
