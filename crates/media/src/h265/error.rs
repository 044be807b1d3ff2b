//! What can be wrong with a camera's H.265.

/// Why an access unit cannot be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum H265Error {
    /// A structure ends too early or holds a number that the standard does not allow.
    #[error("the {what} is cut short or holds a value out of range ({bytes} bytes)")]
    Malformed {
        /// The structure, in the words of the standard.
        what: &'static str,
        /// How long its NAL unit is.
        bytes: usize,
    },
    /// The sequence parameter set describes a picture of impossible size.
    #[error("the sequence parameter set describes a picture of {width}x{height}")]
    PictureSize {
        /// Cropped width in pixels; negative when more is cropped than there is.
        width: i64,
        /// Cropped height in pixels; negative when more is cropped than there is.
        height: i64,
    },
    /// A parameter set is far beyond any size that a camera fills.
    #[error("a parameter set of {bytes} bytes is larger than any picture needs")]
    ParameterSetSize {
        /// How long its NAL unit is.
        bytes: usize,
    },
    /// More picture parameter sets than any camera has.
    #[error("the camera sends more than {limit} picture parameter sets")]
    TooManyParameterSets {
        /// How many are kept.
        limit: usize,
    },
    /// The access unit is larger than any level allows.
    #[error("an access unit of {bytes} bytes is larger than any H.265 level allows")]
    AccessUnitSize {
        /// The size of all NAL units together.
        bytes: usize,
    },
    /// The first slice of the picture is not there.
    #[error("a picture without its first slice")]
    NoFirstSlice,
}
