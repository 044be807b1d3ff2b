//! What the fuzz targets in `fuzz/` feed: one function a target, each with what must hold for any
//! input whatever. The tests below feed the committed inputs, so that nothing found is found twice.
//! The media plane's own are in [`media::fuzz`].

pub use crate::config::fuzz::config;
pub use crate::ingest::fuzz::camera_url;
pub use crate::rtsp_out::fuzz::rtsp_request;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the committed inputs of a target.
    fn replay(target: &str, feed: fn(&[u8])) {
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut inputs: Vec<_> =
            corpus.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", corpus.display());
        for input in inputs {
            println!("{}", input.display());
            feed(&std::fs::read(&input).unwrap());
        }
    }

    #[test]
    fn inputs_of_the_config() {
        replay("config", config);
    }

    #[test]
    fn inputs_of_the_camera_url() {
        replay("camera_url", camera_url);
    }

    #[test]
    fn inputs_of_the_rtsp_request() {
        replay("rtsp_request", rtsp_request);
    }
}
