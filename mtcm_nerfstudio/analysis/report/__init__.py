"""One page that shows what the filter did: ``page.report_page`` makes it."""
