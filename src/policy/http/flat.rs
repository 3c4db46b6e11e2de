use std::{fmt, ptr};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header::Entry, request};

use crate::{
    body::{NotRepeatable, RepeatBody},
    policy::Keep,
};

/// Keeps HTTP requests: sends the original first and builds later ones from a flat copy of its head.
///
/// All headers are copied into one buffer, which is one allocation however many there are, and the values of later requests
/// are slices of it. A clone, as [`Cloned`](crate::keep::Cloned) makes it, takes one or two allocations for each header
/// that was just made. Order, repeated headers and [sensitive](HeaderValue::is_sensitive) marks are kept;
/// [`Extensions`] are cloned where there are any. The body is kept in [its own way](RepeatBody).
///
/// ```
/// use http::Request;
/// use tower_tenacity::{Keep, policy::http::FlatCopy};
///
/// let request = Request::put("http://localhost/items/7").header("x-tag", "a").header("x-tag", "b").body("seven").unwrap();
/// let (first, kept) = FlatCopy.first(request);
/// let (second, kept) = FlatCopy.again(kept.unwrap(), true);
/// assert!(kept.is_none(), "the last attempt takes what is kept");
/// assert_eq!((second.method(), second.uri(), second.headers()), (first.method(), first.uri(), first.headers()));
/// assert_eq!(second.body(), first.body());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FlatCopy;

impl<B: RepeatBody> Keep<Request<B>> for FlatCopy {
    type Kept = FlatRequest<B::Kept>;

    #[inline]
    fn first(&self, request: Request<B>) -> (Request<B>, Option<Self::Kept>) {
        let (head, body) = request.into_parts();
        let (body, kept) = body.keep();
        let kept = kept.map(|body| FlatRequest::new(&head, body));
        (Request::from_parts(head, body), kept)
    }

    fn again(&self, kept: Self::Kept, last: bool) -> (Request<B>, Option<Self::Kept>) {
        let (body, body_kept) = B::again(kept.body, last);
        let mut request = Request::new(body);
        *request.version_mut() = kept.version;
        *request.headers_mut() = kept.headers.to_map();
        if body_kept.is_none() {
            *request.method_mut() = kept.method;
            *request.uri_mut() = kept.uri;
            *request.extensions_mut() = kept.extensions;
            return (request, None);
        }
        request.method_mut().clone_from(&kept.method);
        request.uri_mut().clone_from(&kept.uri);
        if !kept.extensions.is_empty() {
            request.extensions_mut().clone_from(&kept.extensions);
        }
        let FlatRequest { method, uri, version, headers, extensions, .. } = kept;
        (request, body_kept.map(|body| FlatRequest { method, uri, version, headers, extensions, body }))
    }

    fn is_repeatable(&self, kept: &Self::Kept, answered: bool) -> bool {
        match B::check(&kept.body) {
            Ok(()) => true,
            // An attempt that ended with an error is about to let go of the body; one that was answered early may never be.
            Err(NotRepeatable::BeingRead) => !answered,
            Err(_) => false,
        }
    }
}

/// What [`FlatCopy`] keeps of a request: what later attempts are made from.
///
/// [`RetryPolicy::amend`](crate::RetryPolicy::amend) may change it: another host, one more header.
#[derive(Clone)]
pub struct FlatRequest<K> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: FlatHeaders,
    extensions: Extensions,
    body: K,
}

impl<K> FlatRequest<K> {
    #[inline]
    fn new(head: &request::Parts, body: K) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: FlatHeaders::copy(&head.headers),
            extensions: if head.extensions.is_empty() { Extensions::new() } else { head.extensions.clone() },
            body,
        }
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The URI.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The URI, to change it for all later attempts.
    pub const fn uri_mut(&mut self) -> &mut Uri {
        &mut self.uri
    }

    /// The headers, read back from their copy.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        self.headers.to_map()
    }

    /// Sends these headers with all later attempts.
    pub fn set_headers(&mut self, headers: &HeaderMap) {
        self.headers = FlatHeaders::copy(headers);
    }

    /// The extensions.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The extensions, to change them for all later attempts.
    pub const fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// What is kept of the body.
    #[must_use]
    pub const fn body(&self) -> &K {
        &self.body
    }
}

/// Without headers, query and body, any of which may be secret.
impl<K> fmt::Debug for FlatRequest<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlatRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("version", &self.version)
            .field("headers", &self.headers.names)
            .finish_non_exhaustive()
    }
}

// Headers one after the other: length of the name, length of the value and whether it is sensitive, name, value. A name of no
// length is that of the header before.
#[derive(Clone)]
struct FlatHeaders {
    names: usize,
    bytes: Bytes,
}

impl FlatHeaders {
    #[inline]
    fn copy(headers: &HeaderMap) -> Self {
        let mut length = 0;
        each(headers, |name, value| {
            length += digits(name.len()) + digits(mark(value)) + name.len() + value.len();
        });
        let mut bytes = Vec::with_capacity(length);
        each(headers, |name, value| {
            put(&mut bytes, name.len());
            put(&mut bytes, mark(value));
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        });
        // As long as its capacity, it becomes `Bytes` without another allocation.
        Self { names: headers.keys_len(), bytes: Bytes::from(bytes) }
    }

    fn to_map(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.names);
        let mut rest = Rest { bytes: &self.bytes, at: 0 };
        let mut header = rest.next();
        while let Some((name, value)) = header {
            let name = HeaderName::from_lowercase(name).expect("it was the name of a header");
            let mut entry = match headers.entry(name) {
                Entry::Vacant(entry) => entry.insert_entry(value),
                Entry::Occupied(mut entry) => {
                    entry.append(value);
                    entry
                }
            };
            header = loop {
                match rest.next() {
                    Some(([], value)) => entry.append(value),
                    next => break next,
                }
            };
        }
        headers
    }
}

// In the map's own order: the values of one name follow each other.
#[inline]
fn each(headers: &HeaderMap, mut f: impl FnMut(&str, &HeaderValue)) {
    let mut last = None;
    for (name, value) in headers {
        // A name that is repeated is one and the same name.
        let repeated = last.is_some_and(|last| ptr::eq(last, name));
        last = Some(name);
        f(if repeated { "" } else { name.as_str() }, value);
    }
}

// The length of a value, and whether it is sensitive.
#[inline]
fn mark(value: &HeaderValue) -> usize {
    value.len() << 1 | usize::from(value.is_sensitive())
}

// Headers yet to be read.
struct Rest<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Iterator for Rest<'a> {
    type Item = (&'a [u8], HeaderValue);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let name = self.number();
        let mark = self.number();
        let value = self.at + name;
        let name = &self.bytes[self.at..value];
        self.at = value + (mark >> 1);
        let value = HeaderValue::from_maybe_shared(self.bytes.slice(value..self.at));
        let mut value = value.expect("it was the value of a header");
        value.set_sensitive(mark & 1 == 1);
        Some((name, value))
    }
}

impl Rest<'_> {
    fn number(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.bytes[self.at];
            self.at += 1;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }
}

// Numbers in base 128, the low digits first; all but the last digit are marked.
#[inline]
fn put(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[inline]
const fn digits(number: usize) -> usize {
    match number.checked_ilog2() {
        Some(bits) => bits as usize / 7 + 1,
        None => 1,
    }
}
