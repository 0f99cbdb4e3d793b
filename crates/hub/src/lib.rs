//! Fleet-wide controllers: delivery of revisions over the cells of many clusters
