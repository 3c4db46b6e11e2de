use std::{fmt, mem, ptr};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header::Entry};

use crate::{body::RepeatBody, policy::Keep};

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
/// let (second, kept): (Request<&str>, _) = FlatCopy.again(kept.unwrap(), true);
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
        let mut kept = None;
        let request = request.map(|body| {
            let body = body.keep();
            kept = body.1;
            body.0
        });
        let kept = kept.map(|body| FlatRequest::new(&request, body));
        (request, kept)
    }

    fn again(&self, mut kept: Self::Kept, last: bool) -> (Request<B>, Option<Self::Kept>) {
        let (body, body_kept) = B::again(kept.body, last);
        let mut request = Request::new(body);
        *request.version_mut() = kept.version;
        *request.headers_mut() = kept.headers.read();
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

    fn is_repeatable(&self, kept: &Self::Kept) -> bool {
        B::check(&kept.body).is_ok()
    }

    fn take_over(&self, kept: &mut Self::Kept) -> bool {
        B::take_over(&mut kept.body).is_ok()
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
    fn new<B>(request: &Request<B>, body: K) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: FlatHeaders::copy(request.headers()),
            extensions: if request.extensions().is_empty() { Extensions::new() } else { request.extensions().clone() },
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
    pub fn headers(&mut self) -> HeaderMap {
        self.headers.read()
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

// Headers one after the other: a word with the lengths, the name, the value. A name of no length is that of the header before.
#[derive(Clone)]
struct FlatHeaders {
    // How many names there are, for the size of the map.
    names: usize,
    bytes: Flat,
}

// Shared from the second attempt on.
#[derive(Clone)]
enum Flat {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl FlatHeaders {
    #[inline]
    fn copy(headers: &HeaderMap) -> Self {
        // Room for names of 24 bytes, which few exceed on average.
        let values: usize = headers.values().map(HeaderValue::len).sum();
        let mut bytes = Vec::with_capacity(headers.len() * 32 + values);
        for (name, value) in each(headers) {
            bytes.extend_from_slice(&Lengths::of(name, value).0.to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Self { names: headers.keys_len(), bytes: Flat::Copied(bytes) }
    }

    fn share(&mut self) -> &Bytes {
        if let Flat::Copied(bytes) = &mut self.bytes {
            self.bytes = Flat::Shared(Bytes::from(mem::take(bytes)));
        }
        match &self.bytes {
            Flat::Shared(bytes) => bytes,
            Flat::Copied(_) => unreachable!("it has just been shared"),
        }
    }

    fn read(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.names);
        let mut rest = Rest { bytes: self.share(), at: 0 };
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

// In the map's own order, in which the values of one name follow each other; all but the first come without the name.
#[inline]
fn each(headers: &HeaderMap) -> impl Iterator<Item = (&str, &HeaderValue)> {
    let mut last = ptr::null();
    headers.iter().map(move |(name, value)| {
        // A name that is repeated is one and the same.
        let repeated = ptr::eq(last, name);
        last = name;
        (if repeated { "" } else { name.as_str() }, value)
    })
}

// 16 bits for the name, whose length is below that, then those of the value and one for whether it is sensitive.
struct Lengths(u64);

impl Lengths {
    #[inline]
    fn of(name: &str, value: &HeaderValue) -> Self {
        Self((value.len() as u64) << 17 | (name.len() as u64) << 1 | u64::from(value.is_sensitive()))
    }

    const fn name(&self) -> usize {
        (self.0 >> 1) as u16 as usize
    }

    const fn value(&self) -> usize {
        (self.0 >> 17) as usize
    }

    const fn is_sensitive(&self) -> bool {
        self.0 & 1 == 1
    }
}

// Headers yet to be read.
struct Rest<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Iterator for Rest<'a> {
    type Item = (&'a [u8], HeaderValue);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, _) = self.bytes[self.at..].split_first_chunk()?;
        let lengths = Lengths(u64::from_le_bytes(*lengths));
        let name = self.at + size_of::<u64>();
        let value = name + lengths.name();
        self.at = value + lengths.value();
        let header = HeaderValue::from_maybe_shared(self.bytes.slice(value..self.at));
        let mut header = header.expect("it was the value of a header");
        header.set_sensitive(lengths.is_sensitive());
        Some((&self.bytes[name..value], header))
    }
}
