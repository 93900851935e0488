//! Nothing is here; see `benches/`. Raw figures of the lab are in `runs/`.
