//! Kubernetes API server over the object store: HTTP, discovery, authentication, admission, watch
