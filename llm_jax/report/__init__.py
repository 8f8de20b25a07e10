"""Plans and outcomes for people: tables, charts and pages."""
