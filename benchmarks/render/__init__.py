"""What is shown of a result.

report.py        tables on the terminal
page.py          the HTML page, from kernels.html.jinja; roofline.py: its pictures
"""
