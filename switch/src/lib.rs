//! What joins ports: tables, pipeline, flow cache, workers.
