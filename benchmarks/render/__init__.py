"""Results as text and pictures.

cells.py         what a row shows: its name, figures and notes
report.py        tables on the terminal
sweep.py         speed against size as tables; sweep_plot.py: as a picture
page.py          the HTML page, from kernels.html.jinja; roofline.py: its pictures
csv_file.py      all rows as comma-separated values
side_by_side.py  two results side by side, on the terminal and as a page
summary.py       the part of a result that is kept, and the README's section about it
"""
