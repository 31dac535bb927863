"""Where people would rather look than read: charts, one offline HTML page, figures for a paper, traces for Perfetto.

    tables     a run, as the small tables that charts are drawn from
    charts     charts as data: Vega-Lite specifications, and their tables
    lanes      every request as a lane, packed to travel inside of a page
    judged     the audit on a page: eight lights
    sections   what a page says of a run, in the order in which a reader asks
    scheduler  what a simulator knows and a server hides
    searched   a search for capacity
    studied    a study
    sides      several sides over each other
    workload   what a trace, a profile or a plan is like, as pictures
    page       sections become one HTML file; charts become SVG, PNG or PDF
    live       what happens now, served to a browser
    perfetto   a run in the trace format that Perfetto and Chrome open

Reads runs and scorecards; nothing below knows of it.
"""

from inferometer.report.page import html, save_figure, save_figures
from inferometer.report.sections import run_sections
from inferometer.report.workload import workload_charts, workload_sections

__all__ = [
    "html",
    "run_sections",
    "save_figure",
    "save_figures",
    "workload_charts",
    "workload_sections",
]
